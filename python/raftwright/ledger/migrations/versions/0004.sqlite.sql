CREATE TABLE member (
    container_id INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    bytes BIGINT NOT NULL,
    crc32c VARCHAR NOT NULL,
    PRIMARY KEY (container_id, file_id)
)
 WITHOUT ROWID;
CREATE INDEX member_file ON member (file_id);
UPDATE information SET value = '4' WHERE name = 'version';
