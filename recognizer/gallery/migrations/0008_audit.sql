-- Reading the audit trail: what a key of one collection may see of it, and what happened in a time.

CREATE INDEX audit_collection ON audit (collection, number);

CREATE INDEX audit_at ON audit USING brin (at) WITH (pages_per_range = 16);  -- times grow with the numbers
