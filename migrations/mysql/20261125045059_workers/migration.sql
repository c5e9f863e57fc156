-- Made by drizzle-kit, then by hand: one statement, since a table that has been made cannot be undone, and texts that
-- are compared byte by byte, trailing blanks included. Each server reads its own comment.
CREATE TABLE `coordination_workers` (
	`namespace` varchar(128) NOT NULL,
	`key` varchar(255) NOT NULL,
	`name` varchar(255) NOT NULL,
	`kind` varchar(16) NOT NULL,
	`scope` varchar(16) NOT NULL,
	`cluster` varchar(255),
	`generation` bigint NOT NULL,
	`slots` int NOT NULL,
	`paused` boolean NOT NULL,
	`handover_timeout_ms` bigint NOT NULL,
	`schedule` text,
	`revision` bigint NOT NULL,
	CONSTRAINT PRIMARY KEY(`namespace`,`key`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4
	/*!80017 COLLATE utf8mb4_0900_bin */ /*M!100202 COLLATE utf8mb4_nopad_bin */;
