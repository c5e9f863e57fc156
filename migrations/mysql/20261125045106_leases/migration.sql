-- Made by drizzle-kit, then by hand: one statement, since a table that has been made cannot be undone, and texts that
-- are compared byte by byte, trailing blanks included. Each server reads its own comment.
CREATE TABLE `coordination_leases` (
	`namespace` varchar(128) NOT NULL,
	`key` varchar(255) NOT NULL,
	`worker` varchar(255),
	`slot` int NOT NULL,
	`generation` bigint NOT NULL,
	`target` varchar(255),
	`target_at_ms` bigint,
	`holder` varchar(255),
	`token` bigint NOT NULL,
	`attempt` bigint,
	`identity` text,
	`acquired_at_ms` bigint,
	`blocked_node` varchar(255),
	`blocked_token` bigint,
	`cooldown_node` varchar(255),
	`cooldown_until_ms` bigint,
	`fired_at_ms` bigint,
	`waiters` mediumtext NOT NULL,
	`pending` boolean NOT NULL,
	`revision` bigint NOT NULL,
	CONSTRAINT PRIMARY KEY(`namespace`,`key`),
	INDEX `coordination_leases_worker` (`worker`,`namespace`),
	INDEX `coordination_leases_holder` (`holder`,`namespace`),
	INDEX `coordination_leases_target` (`target`,`namespace`),
	INDEX `coordination_leases_blocked` (`blocked_node`,`namespace`),
	INDEX `coordination_leases_pending` (`namespace`,`pending`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4
	/*!80017 COLLATE utf8mb4_0900_bin */ /*M!100202 COLLATE utf8mb4_nopad_bin */;
