-- Matches with a pattern that stays the same: what the expressions of rules call
-- in the place of LIKE, ILIKE, ~ and ~*.

CREATE FUNCTION lifecycle.matches_like(subject text, pattern text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_matches_like';

COMMENT ON FUNCTION lifecycle.matches_like(text, text) IS
'Exactly what subject LIKE pattern gives, faster where the pattern stays the same from call to call. Rules call it in the place of LIKE and NOT LIKE.
Errors: those of LIKE.';

CREATE FUNCTION lifecycle.matches_ilike(subject text, pattern text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_matches_ilike';

COMMENT ON FUNCTION lifecycle.matches_ilike(text, text) IS
'Exactly what subject ILIKE pattern gives, faster where the pattern stays the same from call to call. Rules call it in the place of ILIKE and NOT ILIKE.
Errors: those of ILIKE.';

CREATE FUNCTION lifecycle.matches_regex(subject text, pattern text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_matches_regex';

COMMENT ON FUNCTION lifecycle.matches_regex(text, text) IS
'Exactly what subject ~ pattern gives, faster where the pattern stays the same from call to call. Rules call it in the place of ~ and !~.
Errors: those of ~.';

CREATE FUNCTION lifecycle.matches_iregex(subject text, pattern text) RETURNS boolean
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'lifecycle_matches_iregex';

COMMENT ON FUNCTION lifecycle.matches_iregex(text, text) IS
'Exactly what subject ~* pattern gives, faster where the pattern stays the same from call to call. Rules call it in the place of ~* and !~*.
Errors: those of ~*.';
