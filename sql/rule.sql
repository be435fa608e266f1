-- Rules: points for what a row says, statuses that it asks for.

CREATE TABLE lifecycle.rule (
    on_table     regclass NOT NULL,
    name         text NOT NULL,
    condition    text NOT NULL,
    points       text,
    half_life    interval,
    max_age      interval,
    status       text,
    only_from    text[],
    unless_other text,
    priority     int NOT NULL DEFAULT 0,
    enabled      boolean NOT NULL DEFAULT true,
    signal_table regclass,
    PRIMARY KEY (on_table, name)
);

COMMENT ON TABLE lifecycle.rule IS
'What gives points and what moves leads. A rule has a condition over one row of its table, and either points or a status. The owner of the table writes its rules with plain INSERT, UPDATE and DELETE; every backend obeys from its next statement on.
A rule with points adds them to the demographic score of each lead for whose row the condition holds. A rule with a status moves the lead there when a write makes the condition hold that did not hold before; on INSERT it is enough that it holds. Of several, the one with the highest priority wins, then one that leads to the path''s last status, then to a detour, then furthest along the path, then the first name.
Errors: 42501 not the owner of the table; 55000 the table is not tracked; 22023 and 23514 what the columns say does not fit together; and what is wrong with an expression, with its position.';
COMMENT ON COLUMN lifecycle.rule.on_table IS 'The table whose rows are judged.';
COMMENT ON COLUMN lifecycle.rule.name IS 'The name under which the history shows the rule.';
COMMENT ON COLUMN lifecycle.rule.condition IS 'Boolean SQL expression over one row of the table; NULL does not hold. Of a rule with a status it may use demographic_score and behavior_score. Stored in canonical form.';
COMMENT ON COLUMN lifecycle.rule.points IS 'SQL expression over the row, mostly a number: what the lead gets while the condition holds. NULL gives nothing.';
COMMENT ON COLUMN lifecycle.rule.half_life IS 'On signal tables: after what time the points are worth half. NULL: they do not decay.';
COMMENT ON COLUMN lifecycle.rule.max_age IS 'On signal tables: older signals ask for no status.';
COMMENT ON COLUMN lifecycle.rule.status IS 'The status that the lead is moved to.';
COMMENT ON COLUMN lifecycle.rule.only_from IS 'The statuses in which the rule applies; NULL: all from which the move is legal. A rule that has them takes no part in the entry of a lead.';
COMMENT ON COLUMN lifecycle.rule.unless_other IS 'On signal tables: expression; while another row of the same lead fulfils it, the rule does not fire.';
COMMENT ON COLUMN lifecycle.rule.priority IS 'The rule with the highest one wins.';
COMMENT ON COLUMN lifecycle.rule.enabled IS 'Whether the rule is obeyed.';
COMMENT ON COLUMN lifecycle.rule.signal_table IS 'on_table where that is a signal table; set by us, so that a dump has the tables in order.';

SELECT pg_catalog.pg_extension_config_dump('lifecycle.rule', '');

CREATE FUNCTION lifecycle.rule_changes() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'lifecycle_rule_changes';

COMMENT ON FUNCTION lifecycle.rule_changes() IS
'BEFORE trigger of rule: only the table''s owner, only what is sound; puts expressions into canonical form, tries the rule on up to 1,000 rows, and has every backend read the rules of the table again.';

CREATE TRIGGER checked BEFORE INSERT OR UPDATE OR DELETE ON lifecycle.rule
    FOR EACH ROW EXECUTE FUNCTION lifecycle.rule_changes();

CREATE FUNCTION lifecycle.behavior_score() RETURNS double precision
    LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'lifecycle_behavior_score_of_rule';

COMMENT ON FUNCTION lifecycle.behavior_score() IS
'How the stored condition of a rule says behavior_score: the behaviour score of the lead that is judged, at the moment of the judgement. Errors: 0A000 anywhere else.';
