-- Made by drizzle-kit, then by hand: one statement, since a table that has been made cannot be undone, and texts that
-- are compared byte by byte, trailing blanks included. Each server reads its own comment.
CREATE TABLE `coordination_meta` (
	`namespace` varchar(128) PRIMARY KEY,
	`revision` bigint NOT NULL,
	`watchers` mediumtext NOT NULL,
	`longest_ttl_ms` bigint NOT NULL,
	`token_floor` bigint NOT NULL,
	`server_identity` text NOT NULL,
	`identity_settled` boolean NOT NULL
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC CHARACTER SET utf8mb4
	/*!80017 COLLATE utf8mb4_0900_bin */ /*M!100202 COLLATE utf8mb4_nopad_bin */;
