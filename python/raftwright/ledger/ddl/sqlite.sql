-- Printed by `python -m raftwright.ledger.printing`; change schema.py instead.
CREATE TABLE attempt (
    id INTEGER NOT NULL,
    image_id INTEGER NOT NULL,
    thing VARCHAR NOT NULL,
    subject VARCHAR NOT NULL,
    number INTEGER NOT NULL,
    owner VARCHAR NOT NULL,
    began_tai FLOAT NOT NULL,
    ended_tai FLOAT,
    outcome VARCHAR DEFAULT '' NOT NULL,
    reason TEXT DEFAULT '' NOT NULL,
    bytes BIGINT DEFAULT '0' NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX attempt_image ON attempt (image_id, subject, number);
CREATE TABLE cursor (
    name VARCHAR NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE delivery (
    id INTEGER NOT NULL,
    image_id INTEGER NOT NULL,
    destination VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    target VARCHAR DEFAULT '' NOT NULL,
    bytes BIGINT DEFAULT '0' NOT NULL,
    crc32c VARCHAR DEFAULT '' NOT NULL,
    priority INTEGER DEFAULT '0' NOT NULL,
    rank INTEGER DEFAULT '0' NOT NULL,
    state VARCHAR DEFAULT 'queued' NOT NULL CONSTRAINT delivery_state_is_known CHECK (state IN ('queued', 'sending', 'delivered', 'failed', 'conflict')),
    reason TEXT DEFAULT '' NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    owner VARCHAR DEFAULT '' NOT NULL,
    next_try FLOAT DEFAULT '0' NOT NULL,
    queued_tai FLOAT NOT NULL,
    delivered_tai FLOAT,
    began_tai FLOAT,
    PRIMARY KEY (id),
    UNIQUE (image_id, destination, path, crc32c)
);
CREATE INDEX delivery_queue ON delivery (destination, state, priority, image_id, rank) WHERE state <> 'delivered';
CREATE TABLE detector (
    image_id INTEGER NOT NULL,
    detector VARCHAR NOT NULL,
    location VARCHAR NOT NULL,
    purpose VARCHAR NOT NULL,
    state VARCHAR DEFAULT 'expected' NOT NULL CONSTRAINT detector_state_is_known CHECK (state IN ('expected', 'incomplete', 'missing', 'present')),
    reason TEXT DEFAULT '' NOT NULL,
    missing_pixels BIGINT DEFAULT '0' NOT NULL,
    PRIMARY KEY (image_id, detector)
)
 WITHOUT ROWID;
CREATE TABLE early (
    obsid VARCHAR NOT NULL,
    facts TEXT NOT NULL,
    told_tai FLOAT NOT NULL,
    PRIMARY KEY (obsid)
);
CREATE TABLE event (
    number INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at_tai FLOAT NOT NULL,
    image_id INTEGER,
    obsid VARCHAR DEFAULT '' NOT NULL,
    dayobs INTEGER DEFAULT '0' NOT NULL,
    thing VARCHAR NOT NULL,
    subject VARCHAR DEFAULT '' NOT NULL,
    old VARCHAR DEFAULT '' NOT NULL,
    new VARCHAR NOT NULL,
    owner VARCHAR DEFAULT '' NOT NULL,
    detail TEXT DEFAULT '{}' NOT NULL
);
CREATE INDEX event_image ON event (image_id);
CREATE INDEX event_night ON event (dayobs, thing);
CREATE TABLE file (
    id INTEGER NOT NULL,
    image_id INTEGER NOT NULL,
    kind VARCHAR DEFAULT 'raw' NOT NULL,
    detector VARCHAR DEFAULT '' NOT NULL,
    location VARCHAR DEFAULT '' NOT NULL,
    version INTEGER DEFAULT '1' NOT NULL,
    path VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    adler32 VARCHAR DEFAULT '' NOT NULL,
    crc32c VARCHAR NOT NULL,
    missing BIGINT DEFAULT '0' NOT NULL,
    status VARCHAR NOT NULL,
    replaces VARCHAR DEFAULT '' NOT NULL,
    replaced_by VARCHAR DEFAULT '' NOT NULL,
    written_tai FLOAT NOT NULL,
    verified_tai FLOAT,
    PRIMARY KEY (id),
    UNIQUE (path)
);
CREATE INDEX file_image ON file (image_id, detector);
CREATE TABLE header (
    id INTEGER NOT NULL,
    obsid VARCHAR NOT NULL,
    version INTEGER NOT NULL,
    state VARCHAR NOT NULL,
    path VARCHAR NOT NULL,
    bytes BIGINT NOT NULL,
    crc32c VARCHAR NOT NULL,
    md5 VARCHAR DEFAULT '' NOT NULL,
    problems TEXT DEFAULT '[]' NOT NULL,
    made_tai FLOAT NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (obsid, version)
);
CREATE TABLE image (
    id INTEGER NOT NULL,
    obsid VARCHAR NOT NULL,
    daq_id VARCHAR NOT NULL,
    camera VARCHAR NOT NULL,
    instrument VARCHAR NOT NULL,
    folder VARCHAR DEFAULT '' NOT NULL,
    dayobs INTEGER NOT NULL,
    seqnum INTEGER NOT NULL,
    controller VARCHAR NOT NULL,
    exposure_id BIGINT NOT NULL,
    state VARCHAR DEFAULT 'announced' NOT NULL CONSTRAINT image_state_is_known CHECK (state IN ('announced', 'capturing', 'incomplete', 'complete', 'lost')),
    reason TEXT DEFAULT '' NOT NULL,
    header_state VARCHAR DEFAULT 'expected' NOT NULL,
    expected_sources INTEGER DEFAULT '0' NOT NULL,
    expected_detectors INTEGER DEFAULT '0' NOT NULL,
    trigger_tai FLOAT,
    begin_tai FLOAT,
    end_tai FLOAT,
    end_readout_tai FLOAT,
    announced_tai FLOAT NOT NULL,
    settled_tai FLOAT,
    complete_tai FLOAT,
    image_type VARCHAR,
    exposure_time FLOAT,
    physical_filter VARCHAR,
    target VARCHAR,
    group_id VARCHAR,
    ra FLOAT,
    dec FLOAT,
    cur_index INTEGER,
    PRIMARY KEY (id),
    UNIQUE (obsid, daq_id)
);
CREATE INDEX image_group ON image (group_id);
CREATE INDEX image_night ON image (dayobs, state);
CREATE INDEX image_unsettled ON image (state, announced_tai);
CREATE TABLE information (
    name VARCHAR NOT NULL,
    value VARCHAR NOT NULL,
    PRIMARY KEY (name)
);
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
    stored TEXT DEFAULT '' NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (repository, path, crc32c)
);
CREATE INDEX ingest_age ON ingest (repository, state, pinned, ingested_tai);
CREATE INDEX ingest_image ON ingest (image_id, detector, repository, state);
CREATE INDEX ingest_observed ON ingest (repository, observed_tai) WHERE state = 'ingested' AND pinned = 0;
CREATE INDEX ingest_queue ON ingest (repository, state, priority, image_id) WHERE state NOT IN ('ingested', 'removed');
CREATE TABLE member (
    container_id INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    bytes BIGINT NOT NULL,
    crc32c VARCHAR NOT NULL,
    PRIMARY KEY (container_id, file_id)
)
 WITHOUT ROWID;
CREATE INDEX member_file ON member (file_id);
CREATE TABLE owner (
    name VARCHAR NOT NULL,
    host VARCHAR NOT NULL,
    boot VARCHAR NOT NULL,
    pid INTEGER NOT NULL,
    started BIGINT NOT NULL,
    renewed FLOAT NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE quarantine (
    id INTEGER NOT NULL,
    what VARCHAR NOT NULL,
    name_hex VARCHAR NOT NULL,
    shown VARCHAR NOT NULL,
    reason TEXT NOT NULL,
    first_tai FLOAT NOT NULL,
    last_tai FLOAT NOT NULL,
    count BIGINT DEFAULT '1' NOT NULL,
    standing VARCHAR DEFAULT 'aside' NOT NULL,
    PRIMARY KEY (id),
    UNIQUE (what, name_hex)
);
CREATE INDEX quarantine_again ON quarantine (what) WHERE standing = 'again';
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
CREATE TABLE role (
    name VARCHAR NOT NULL,
    owner VARCHAR NOT NULL,
    since_tai FLOAT NOT NULL,
    PRIMARY KEY (name)
);
CREATE TABLE source (
    image_id INTEGER NOT NULL,
    location VARCHAR NOT NULL,
    kind VARCHAR DEFAULT '' NOT NULL,
    state VARCHAR DEFAULT 'expected' NOT NULL CONSTRAINT source_state_is_known CHECK (state IN ('expected', 'claimed', 'open', 'incomplete', 'failed', 'gone', 'done', 'conflict')),
    reason TEXT DEFAULT '' NOT NULL,
    expected BIGINT NOT NULL,
    received BIGINT DEFAULT '0' NOT NULL,
    attempts INTEGER DEFAULT '0' NOT NULL,
    owner VARCHAR DEFAULT '' NOT NULL,
    created BIGINT DEFAULT '0' NOT NULL,
    next_try FLOAT DEFAULT '0' NOT NULL,
    PRIMARY KEY (image_id, location)
)
 WITHOUT ROWID;
CREATE INDEX source_state ON source (state, next_try);
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
CREATE VIEW exposure AS SELECT instrument, exposure_id AS id, obsid AS obs_id, dayobs AS day_obs, seqnum AS seq_num,
    group_id AS "group", image_type AS observation_type, exposure_time, physical_filter,
    target AS target_name, ra AS tracking_ra, dec AS tracking_dec,
    (begin_tai / 86400.0 + 40587.0) AS begin_mjd_tai, (end_tai / 86400.0 + 40587.0) AS end_mjd_tai,
    state, header_state, expected_detectors, id AS image_id
FROM image;
CREATE VIEW obscore AS SELECT 'image' AS dataproduct_type, 1 AS calib_level, image.instrument AS instrument_name,
    image.obsid AS obs_id, image.exposure_id AS lsst_exposure, file.detector AS lsst_detector,
    'file://' || file.path AS access_url, 'image/fits' AS access_format,
    file.bytes / 1000 AS access_estsize, image.target AS target_name, image.ra AS s_ra,
    image.dec AS s_dec, (image.begin_tai / 86400.0 + 40587.0) AS t_min, (image.end_tai / 86400.0 + 40587.0) AS t_max,
    image.exposure_time AS t_exptime, image.physical_filter AS lsst_filter, image.dayobs AS day_obs
FROM file JOIN image ON image.id = file.image_id
WHERE file.kind = 'raw' AND file.status NOT IN ('conflict', 'lost', 'damaged', 'removed')
    AND file.replaced_by = '';
CREATE VIEW night AS SELECT dayobs AS day_obs, instrument, count(*) AS images,
    sum(CASE WHEN state = 'complete' THEN 1 ELSE 0 END) AS complete,
    sum(CASE WHEN state = 'incomplete' THEN 1 ELSE 0 END) AS incomplete,
    sum(CASE WHEN state = 'lost' THEN 1 ELSE 0 END) AS lost,
    sum(CASE WHEN state IN ('announced', 'capturing') THEN 1 ELSE 0 END) AS waiting
FROM image GROUP BY dayobs, instrument;
CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO alembic_version (version_num) VALUES ('0004');
INSERT INTO information (name, value) VALUES ('version', '4');
