CREATE TABLE [coordination_events] (
	[namespace] nvarchar(128) COLLATE Latin1_General_100_BIN2,
	[revision] bigint,
	[position] int,
	[at_ms] bigint NOT NULL,
	[type] nvarchar(320) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[subject] nvarchar(320) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[node] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[token] bigint,
	[actor] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	[reason] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	[detail] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	CONSTRAINT [coordination_events_pkey] PRIMARY KEY([namespace],[revision],[position])
);
--> statement-breakpoint
CREATE TABLE [coordination_leases] (
	[namespace] nvarchar(128) COLLATE Latin1_General_100_BIN2,
	[key] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[worker] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[slot] int NOT NULL,
	[generation] bigint NOT NULL,
	[target] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[target_at_ms] bigint,
	[holder] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[token] bigint NOT NULL,
	[attempt] bigint,
	[identity] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	[acquired_at_ms] bigint,
	[blocked_node] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[blocked_token] bigint,
	[cooldown_node] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[cooldown_until_ms] bigint,
	[fired_at_ms] bigint,
	[waiters] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[pending] bit NOT NULL,
	[revision] bigint NOT NULL,
	CONSTRAINT [coordination_leases_pkey] PRIMARY KEY([namespace],[key])
);
--> statement-breakpoint
CREATE TABLE [coordination_meta] (
	[namespace] nvarchar(128) COLLATE Latin1_General_100_BIN2,
	[revision] bigint NOT NULL,
	[watchers] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[longest_ttl_ms] bigint NOT NULL,
	[token_floor] bigint NOT NULL,
	[server_identity] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[identity_settled] bit NOT NULL,
	CONSTRAINT [coordination_meta_pkey] PRIMARY KEY([namespace])
);
--> statement-breakpoint
CREATE TABLE [coordination_nodes] (
	[namespace] nvarchar(128) COLLATE Latin1_General_100_BIN2,
	[id] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[name] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[cluster] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[state] nvarchar(16) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[workers] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[labels] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[version] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	[machine] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[process] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	[ttl_ms] bigint NOT NULL,
	[operation] bigint NOT NULL,
	[beat] bigint NOT NULL,
	[started_at_ms] bigint NOT NULL,
	[heartbeat_at_ms] bigint NOT NULL,
	[gone_at_ms] bigint,
	[joined_revision] bigint NOT NULL,
	[news_revision] bigint NOT NULL,
	[revision] bigint NOT NULL,
	CONSTRAINT [coordination_nodes_pkey] PRIMARY KEY([namespace],[id])
);
--> statement-breakpoint
CREATE TABLE [coordination_workers] (
	[namespace] nvarchar(128) COLLATE Latin1_General_100_BIN2,
	[key] nvarchar(320) COLLATE Latin1_General_100_BIN2,
	[name] nvarchar(max) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[kind] nvarchar(16) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[scope] nvarchar(16) COLLATE Latin1_General_100_BIN2 NOT NULL,
	[cluster] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	[generation] bigint NOT NULL,
	[slots] int NOT NULL,
	[paused] bit NOT NULL,
	[handover_timeout_ms] bigint NOT NULL,
	[schedule] nvarchar(max) COLLATE Latin1_General_100_BIN2,
	[revision] bigint NOT NULL,
	CONSTRAINT [coordination_workers_pkey] PRIMARY KEY([namespace],[key])
);
--> statement-breakpoint
CREATE INDEX [coordination_leases_worker] ON [coordination_leases] ([worker],[namespace]);--> statement-breakpoint
CREATE INDEX [coordination_leases_holder] ON [coordination_leases] ([holder],[namespace]);--> statement-breakpoint
CREATE INDEX [coordination_leases_target] ON [coordination_leases] ([target],[namespace]);--> statement-breakpoint
CREATE INDEX [coordination_leases_blocked] ON [coordination_leases] ([blocked_node],[namespace]);--> statement-breakpoint
CREATE INDEX [coordination_leases_pending] ON [coordination_leases] ([pending],[namespace]);--> statement-breakpoint
CREATE INDEX [coordination_nodes_machine] ON [coordination_nodes] ([machine],[namespace]);