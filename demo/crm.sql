-- An ordinary CRM: accounts, leads, opportunities, activities. Nothing here knows of lifecycle.

CREATE SCHEMA crm;

CREATE TABLE crm.accounts (
    id        int PRIMARY KEY,
    name      text NOT NULL,
    industry  text NOT NULL,
    employees int NOT NULL
);

CREATE TABLE crm.leads (
    id               int PRIMARY KEY,
    account_id       int NOT NULL REFERENCES crm.accounts (id),
    first_name       text NOT NULL,
    last_name        text NOT NULL,
    email            text NOT NULL,
    title            text,
    source           text,
    expected_revenue numeric(12, 2),
    status_reason    text,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_by       text NOT NULL
);

CREATE TABLE crm.opportunities (
    id        int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lead_id   int NOT NULL,
    owner     text,
    amount    numeric(12, 2),
    stage     text NOT NULL DEFAULT 'open' CHECK (stage IN ('open', 'won', 'lost')),
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
);
CREATE INDEX ON crm.opportunities (lead_id);

CREATE TABLE crm.activities (
    id      int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lead_id int NOT NULL,
    kind    text NOT NULL CHECK (kind IN ('visit', 'webinar', 'mail', 'form')),
    page    text,
    at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON crm.activities (lead_id);
