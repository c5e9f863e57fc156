-- Made by drizzle-kit, then by hand: one statement, since a table that has been made cannot be undone, and texts that
-- are compared byte by byte, trailing blanks included. Each server reads its own comment.
CREATE TABLE `coordination_nodes` (
	`namespace` varchar(128) NOT NULL,
	`id` varchar(255) NOT NULL,
	`name` varchar(255) NOT NULL,
	`cluster` varchar(255) NOT NULL,
	`state` varchar(16) NOT NULL,
	`workers` mediumtext NOT NULL,
	`labels` mediumtext NOT NULL,
	`version` text,
	`machine` varchar(255),
	`process` text,
	`ttl_ms` bigint NOT NULL,
	`operation` bigint NOT NULL,
	`beat` bigint NOT NULL,
	`started_at_ms` bigint NOT NULL,
	`heartbeat_at_ms` bigint NOT NULL,
	`gone_at_ms` bigint,
	`joined_revision` bigint NOT NULL,
	`news_revision` bigint NOT NULL,
	`revision` bigint NOT NULL,
	CONSTRAINT PRIMARY KEY(`namespace`,`id`),
	INDEX `coordination_nodes_machine` (`machine`,`namespace`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4
	/*!80017 COLLATE utf8mb4_0900_bin */ /*M!100202 COLLATE utf8mb4_nopad_bin */;
