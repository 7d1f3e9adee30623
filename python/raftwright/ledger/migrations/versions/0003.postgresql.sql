ALTER TABLE quarantine ADD COLUMN standing VARCHAR DEFAULT 'aside' NOT NULL;
ALTER TABLE ingest ADD COLUMN stored TEXT DEFAULT '' NOT NULL;
CREATE INDEX quarantine_again ON quarantine (what) WHERE standing = 'again';
UPDATE information SET value = '3' WHERE name = 'version';
