ALTER TABLE `coordination_leases` ADD `fired_at_ms` integer;--> statement-breakpoint
ALTER TABLE `coordination_nodes` ADD `machine` text;--> statement-breakpoint
ALTER TABLE `coordination_nodes` ADD `process` text;--> statement-breakpoint
ALTER TABLE `coordination_workers` ADD `schedule` text;--> statement-breakpoint
CREATE INDEX `coordination_nodes_machine` ON `coordination_nodes` (`machine`,`namespace`);