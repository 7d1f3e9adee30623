ALTER TABLE image ADD COLUMN cur_index INTEGER;
ALTER TABLE delivery ADD COLUMN began_tai FLOAT;
CREATE INDEX image_group ON image (group_id);
CREATE TABLE ingest (
    id INTEGER NOT NULL,
    image_id INTEGER NOT NULL,
    file_id INTEGER DEFAULT '0' NOT NULL,
    repository VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    uri TEXT DEFAULT '' NOT NULL,
    detector VARCHAR DEFAULT '' NOT NULL,
    kind VARCHAR DEFAULT 'raw' NOT NULL,
    crc32c VARCHAR DEFAULT '' NOT NULL,
    bytes BIGINT DEFAULT '0' NOT NULL,
    priority INTEGER DEFAULT '0' NOT NULL,
    state VARCHAR DEFAULT 'queued' NOT NULL CONSTRAINT ingest_state_is_known CHECK (state IN ('queued', 'ingesting', 'waiting', 'ingested', 'failed', 'conflict', 'unsupported', 'leaving', 'removed')),
    reason TEXT DEFAULT '' NOT NULL,
    code INTEGER DEFAULT '0' NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    owner VARCHAR DEFAULT '' NOT NULL,
    next_try FLOAT DEFAULT '0' NOT NULL,
    dataset_id VARCHAR DEFAULT '' NOT NULL,
    run VARCHAR DEFAULT '' NOT NULL,
    dataset_type VARCHAR DEFAULT '' NOT NULL,
    pinned INTEGER DEFAULT '0' NOT NULL,
    queued_tai FLOAT NOT NULL,
    ingested_tai FLOAT,
    observed_tai FLOAT NOT NULL,
    removed_tai FLOAT,
    PRIMARY KEY (id),
    UNIQUE (repository, path, crc32c)
);
CREATE INDEX ingest_age ON ingest (repository, state, pinned, ingested_tai);
CREATE INDEX ingest_image ON ingest (image_id, detector, repository, state);
CREATE INDEX ingest_observed ON ingest (repository, observed_tai) WHERE state = 'ingested' AND pinned = 0;
CREATE INDEX ingest_queue ON ingest (repository, state, priority, image_id) WHERE state NOT IN ('ingested', 'removed');
CREATE TABLE replica (
    id INTEGER NOT NULL,
    image_id INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    endpoint VARCHAR NOT NULL,
    target VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    crc32c VARCHAR NOT NULL,
    adler32 VARCHAR DEFAULT '' NOT NULL,
    state VARCHAR DEFAULT 'verified' NOT NULL CONSTRAINT replica_state_is_known CHECK (state IN ('verified', 'damaged', 'lost', 'removed')),
    reason TEXT DEFAULT '' NOT NULL,
    custodial INTEGER DEFAULT '0' NOT NULL,
    verified_tai FLOAT NOT NULL,
    checked_tai FLOAT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (file_id, endpoint)
);
CREATE INDEX replica_image ON replica (image_id);
CREATE INDEX replica_scrub ON replica (endpoint, state, checked_tai);
CREATE INDEX replica_spoilt ON replica (endpoint, state) WHERE state <> 'verified';
CREATE TABLE tag (
    image_id INTEGER NOT NULL,
    detector VARCHAR DEFAULT '' NOT NULL,
    name VARCHAR NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    tagged_tai FLOAT NOT NULL,
    PRIMARY KEY (image_id, detector, name)
)
 WITHOUT ROWID;
CREATE INDEX tag_name ON tag (name);
DROP VIEW obscore;
CREATE VIEW obscore AS SELECT 'image' AS dataproduct_type, 1 AS calib_level, image.instrument AS instrument_name,
    image.obsid AS obs_id, image.exposure_id AS lsst_exposure, file.detector AS lsst_detector,
    'file://' || file.path AS access_url, 'image/fits' AS access_format,
    file.bytes / 1000 AS access_estsize, image.target AS target_name, image.ra AS s_ra,
    image.dec AS s_dec, (image.begin_tai / 86400.0 + 40587.0) AS t_min, (image.end_tai / 86400.0 + 40587.0) AS t_max,
    image.exposure_time AS t_exptime, image.physical_filter AS lsst_filter, image.dayobs AS day_obs
FROM file JOIN image ON image.id = file.image_id
WHERE file.kind = 'raw' AND file.status NOT IN ('conflict', 'lost', 'damaged', 'removed')
    AND file.replaced_by = '';
UPDATE information SET value = '2' WHERE name = 'version';
