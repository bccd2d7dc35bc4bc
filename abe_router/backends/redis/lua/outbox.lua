-- Reads an outbox from an id on, for the one mover that owns it. Returns in how many milliseconds to ask again if
-- another one does, else 0, the entries, and 1 if there are more because the answer is full.
-- KEYS: owner, outbox. ARGV: mover, lease in milliseconds, where to begin, limit, the bytes that make the answer full.
local time = now()
local owner, till = owner_of(KEYS[1])
if owner ~= ARGV[1] and till > time then return {till - time, {}, 0} end
set_owner(KEYS[1], ARGV[1], time + ARGV[2])
local found, full = entries_from(KEYS[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))
return {0, found, full and 1 or 0}
