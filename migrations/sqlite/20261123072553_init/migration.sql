CREATE TABLE `coordination_events` (
	`namespace` text NOT NULL,
	`revision` integer NOT NULL,
	`position` integer NOT NULL,
	`at_ms` integer NOT NULL,
	`type` text NOT NULL,
	`subject` text NOT NULL,
	`node` text,
	`token` integer,
	`actor` text,
	`reason` text,
	`detail` text,
	CONSTRAINT `coordination_events_pk` PRIMARY KEY(`namespace`, `revision`, `position`)
);
--> statement-breakpoint
CREATE TABLE `coordination_leases` (
	`namespace` text NOT NULL,
	`key` text NOT NULL,
	`worker` text,
	`slot` integer NOT NULL,
	`generation` integer NOT NULL,
	`target` text,
	`target_at_ms` integer,
	`holder` text,
	`token` integer NOT NULL,
	`attempt` integer,
	`identity` text,
	`acquired_at_ms` integer,
	`blocked_node` text,
	`blocked_token` integer,
	`cooldown_node` text,
	`cooldown_until_ms` integer,
	`waiters` text NOT NULL,
	`pending` integer NOT NULL,
	`revision` integer NOT NULL,
	CONSTRAINT `coordination_leases_pk` PRIMARY KEY(`namespace`, `key`)
);
--> statement-breakpoint
CREATE TABLE `coordination_meta` (
	`namespace` text PRIMARY KEY,
	`revision` integer NOT NULL,
	`watchers` text NOT NULL,
	`longest_ttl_ms` integer NOT NULL,
	`token_floor` integer NOT NULL,
	`server_identity` text NOT NULL,
	`identity_settled` integer NOT NULL
);
--> statement-breakpoint
CREATE TABLE `coordination_nodes` (
	`namespace` text NOT NULL,
	`id` text NOT NULL,
	`name` text NOT NULL,
	`cluster` text NOT NULL,
	`state` text NOT NULL,
	`workers` text NOT NULL,
	`labels` text NOT NULL,
	`version` text,
	`ttl_ms` integer NOT NULL,
	`operation` integer NOT NULL,
	`beat` integer NOT NULL,
	`started_at_ms` integer NOT NULL,
	`heartbeat_at_ms` integer NOT NULL,
	`gone_at_ms` integer,
	`joined_revision` integer NOT NULL,
	`news_revision` integer NOT NULL,
	`revision` integer NOT NULL,
	CONSTRAINT `coordination_nodes_pk` PRIMARY KEY(`namespace`, `id`)
);
--> statement-breakpoint
CREATE TABLE `coordination_workers` (
	`namespace` text NOT NULL,
	`key` text NOT NULL,
	`name` text NOT NULL,
	`kind` text NOT NULL,
	`scope` text NOT NULL,
	`cluster` text,
	`generation` integer NOT NULL,
	`slots` integer NOT NULL,
	`paused` integer NOT NULL,
	`handover_timeout_ms` integer NOT NULL,
	`revision` integer NOT NULL,
	CONSTRAINT `coordination_workers_pk` PRIMARY KEY(`namespace`, `key`)
);
--> statement-breakpoint
CREATE INDEX `coordination_leases_worker` ON `coordination_leases` (`worker`,`namespace`);--> statement-breakpoint
CREATE INDEX `coordination_leases_holder` ON `coordination_leases` (`holder`,`namespace`);--> statement-breakpoint
CREATE INDEX `coordination_leases_target` ON `coordination_leases` (`target`,`namespace`);--> statement-breakpoint
CREATE INDEX `coordination_leases_blocked` ON `coordination_leases` (`blocked_node`,`namespace`);--> statement-breakpoint
CREATE INDEX `coordination_leases_pending` ON `coordination_leases` (`namespace`) WHERE "coordination_leases"."pending";