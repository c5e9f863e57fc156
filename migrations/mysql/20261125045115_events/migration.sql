-- Made by drizzle-kit, then by hand: one statement, since a table that has been made cannot be undone, and texts that
-- are compared byte by byte, trailing blanks included. Each server reads its own comment.
CREATE TABLE `coordination_events` (
	`namespace` varchar(128) NOT NULL,
	`revision` bigint NOT NULL,
	`position` int NOT NULL,
	`at_ms` bigint NOT NULL,
	`type` varchar(255) NOT NULL,
	`subject` varchar(255) NOT NULL,
	`node` varchar(255),
	`token` bigint,
	`actor` text,
	`reason` text,
	`detail` mediumtext,
	CONSTRAINT PRIMARY KEY(`namespace`,`revision`,`position`)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4
	/*!80017 COLLATE utf8mb4_0900_bin */ /*M!100202 COLLATE utf8mb4_nopad_bin */;
