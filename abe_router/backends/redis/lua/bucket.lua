-- The entries of a bucket of the key-value store: a hash of name to `REVISION:UNTIL:VALUE`, and a sorted
-- set of the names that expire, by when. Times are in milliseconds; an UNTIL of 0 is never.

-- Returns the revision and the value of a stored entry; 0 when there is none or it has expired.
local function read(stored, time)
  if not stored then return 0 end
  local revision, till, at = string.match(stored, '^(%d+):(%d+):()')
  if not revision then return 0 end -- another program wrote it
  if tonumber(till) > 0 and tonumber(till) <= time then return 0 end
  return tonumber(revision), string.sub(stored, at)
end

-- Deletes some entries that have expired, so that the cost of a call is bounded.
local function expire(entries, expiry, time)
  local due = redis.call('ZRANGE', expiry, '-inf', time, 'BYSCORE', 'LIMIT', 0, 20)
  if #due > 0 then
    redis.call('HDEL', entries, unpack(due))
    redis.call('ZREM', expiry, unpack(due))
  end
end
