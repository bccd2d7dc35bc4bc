-- Appends outputs that an outbox has, except those that were moved before. Returns for each that was refused its
-- position and why; what is behind it for the same stream is refused as well.
-- KEYS: moved, streams, the ids of each. ARGV: for how many milliseconds a move is remembered; then of each output
-- the number of its stream, for how many milliseconds its id is remembered, what identifies the move, the id, the
-- body, the time and the headers.
-- A move that is known is noted once more, so that the call always writes: only then WAIT says that replicas have
-- it.
local STEP = 7
local time, streams, remembering, refused, stopped = now(), (#KEYS - 1) / 2, {}, {}, {}

local function append(at)
  local stream, move = 1 + ARGV[at], ARGV[at + 2]
  local known = redis.call('ZSCORE', KEYS[1], move)
  redis.call('ZADD', KEYS[1], time + ARGV[1], move)
  if known and tonumber(known) > time then return nil end
  local ids, window = KEYS[stream + streams], ARGV[at + 1]
  local ok, added = pcall(
    append_unless_known, KEYS[stream], ids, time, window, ARGV[at + 3], unpack(ARGV, at + 4, at + 6))
  if not ok then
    redis.call('ZREM', KEYS[1], move)
    return type(added) == 'table' and added.err or tostring(added)
  end
  if tonumber(window) > 0 then remembering[ids] = true end
end

for at = 2, #ARGV, STEP do
  local stream = ARGV[at]
  stopped[stream] = stopped[stream] or append(at)
  if stopped[stream] then
    refused[#refused + 1] = (at - 2) / STEP
    refused[#refused + 1] = stopped[stream]
  end
end
local most = (#ARGV - 1) / STEP + 100
forget(KEYS[1], time, most)
for ids in pairs(remembering) do forget(ids, time, most) end
return refused
