CREATE TABLE "coordination_events" (
	"namespace" text,
	"revision" bigint,
	"position" integer,
	"at_ms" bigint NOT NULL,
	"type" text NOT NULL,
	"subject" text NOT NULL,
	"node" text,
	"token" bigint,
	"actor" text,
	"reason" text,
	"detail" jsonb,
	CONSTRAINT "coordination_events_pkey" PRIMARY KEY("namespace","revision","position")
);
--> statement-breakpoint
CREATE TABLE "coordination_leases" (
	"namespace" text,
	"key" text,
	"worker" text,
	"slot" integer NOT NULL,
	"generation" bigint NOT NULL,
	"target" text,
	"target_at_ms" bigint,
	"holder" text,
	"token" bigint NOT NULL,
	"attempt" bigint,
	"identity" text,
	"acquired_at_ms" bigint,
	"blocked_node" text,
	"blocked_token" bigint,
	"cooldown_node" text,
	"cooldown_until_ms" bigint,
	"waiters" jsonb NOT NULL,
	"pending" boolean NOT NULL,
	"revision" bigint NOT NULL,
	CONSTRAINT "coordination_leases_pkey" PRIMARY KEY("namespace","key")
);
--> statement-breakpoint
CREATE TABLE "coordination_meta" (
	"namespace" text PRIMARY KEY,
	"revision" bigint NOT NULL,
	"watchers" jsonb NOT NULL,
	"longest_ttl_ms" bigint NOT NULL,
	"token_floor" bigint NOT NULL,
	"server_identity" text NOT NULL,
	"identity_settled" boolean NOT NULL
);
--> statement-breakpoint
CREATE TABLE "coordination_nodes" (
	"namespace" text,
	"id" text,
	"name" text NOT NULL,
	"cluster" text NOT NULL,
	"state" text NOT NULL,
	"workers" jsonb NOT NULL,
	"labels" jsonb NOT NULL,
	"version" text,
	"ttl_ms" bigint NOT NULL,
	"operation" bigint NOT NULL,
	"beat" bigint NOT NULL,
	"started_at_ms" bigint NOT NULL,
	"heartbeat_at_ms" bigint NOT NULL,
	"gone_at_ms" bigint,
	"joined_revision" bigint NOT NULL,
	"news_revision" bigint NOT NULL,
	"revision" bigint NOT NULL,
	CONSTRAINT "coordination_nodes_pkey" PRIMARY KEY("namespace","id")
);
--> statement-breakpoint
CREATE TABLE "coordination_workers" (
	"namespace" text,
	"key" text,
	"name" text NOT NULL,
	"kind" text NOT NULL,
	"scope" text NOT NULL,
	"cluster" text,
	"generation" bigint NOT NULL,
	"slots" integer NOT NULL,
	"paused" boolean NOT NULL,
	"handover_timeout_ms" bigint NOT NULL,
	"revision" bigint NOT NULL,
	CONSTRAINT "coordination_workers_pkey" PRIMARY KEY("namespace","key")
);
--> statement-breakpoint
CREATE INDEX "coordination_leases_worker" ON "coordination_leases" ("worker","namespace");--> statement-breakpoint
CREATE INDEX "coordination_leases_holder" ON "coordination_leases" ("holder","namespace");--> statement-breakpoint
CREATE INDEX "coordination_leases_target" ON "coordination_leases" ("target","namespace");--> statement-breakpoint
CREATE INDEX "coordination_leases_blocked" ON "coordination_leases" ("blocked_node","namespace");--> statement-breakpoint
CREATE INDEX "coordination_leases_pending" ON "coordination_leases" ("namespace") WHERE "pending";--> statement-breakpoint
-- Room on each page for the next version of a row, so that a heartbeat stays a heap-only update.
ALTER TABLE "coordination_nodes" SET (fillfactor = 50);
