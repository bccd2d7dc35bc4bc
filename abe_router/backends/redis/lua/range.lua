-- Returns entries of a stream, and 1 if there are more because the answer is full.
-- KEYS: stream. ARGV: where to begin, limit, the bytes that make the answer full.
local found, full = entries_from(KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]))
return {found, full and 1 or 0}
