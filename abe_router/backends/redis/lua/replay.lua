-- Appends dead letters for their own group again; other groups skip an entry that names another group in
-- `only`. Returns how many. A field that another program left out is left out again. `former` says how often
-- the message was replayed, and which dead letter the last replay moved: `COUNT:ID`.
-- KEYS: dead, stream. ARGV: group, ids.
local count = 0
for i = 2, #ARGV do
  local dead = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if dead then
    local again, few = {'only', ARGV[1]}, #dead[2] < 4000 -- Lua limits the arguments of a call
    local replays = 0
    for f = 1, #dead[2], 2 do
      local name, value = dead[2][f], dead[2][f + 1]
      local ours = name == 'data' or name == 'id' or name == 'at' or name == 'headers'
      if name == 'former' then
        replays = tonumber(string.match(value, '^(%d%d?%d?%d?%d?):') or 0)
      elseif ours or few and name ~= 'dead_letter' and name ~= 'only' then
        again[#again + 1] = name
        again[#again + 1] = value
      end
    end
    again[#again + 1] = 'former'
    again[#again + 1] = string.format('%d:%s', replays + 1, ARGV[i])
    redis.call('XADD', KEYS[2], '*', unpack(again))
    redis.call('XDEL', KEYS[1], ARGV[i])
    count = count + 1
  end
end
return count
