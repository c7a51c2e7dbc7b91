-- Where a synthetic OMS came from, so that making it again is recognised. One row; none when an ETL fills the hub.
CREATE TABLE oms.origin (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),
    seed         bigint  NOT NULL,
    incarcerated integer NOT NULL,
    community    integer NOT NULL,
    archived     integer NOT NULL,
    -- The date of the extract; a played day moves it on.
    as_of        date    NOT NULL
);
