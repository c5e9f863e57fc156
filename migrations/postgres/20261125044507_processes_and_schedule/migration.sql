ALTER TABLE "coordination_leases" ADD COLUMN "fired_at_ms" bigint;--> statement-breakpoint
ALTER TABLE "coordination_nodes" ADD COLUMN "machine" text;--> statement-breakpoint
ALTER TABLE "coordination_nodes" ADD COLUMN "process" text;--> statement-breakpoint
ALTER TABLE "coordination_workers" ADD COLUMN "schedule" text;--> statement-breakpoint
CREATE INDEX "coordination_nodes_machine" ON "coordination_nodes" ("machine","namespace");