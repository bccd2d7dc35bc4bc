-- Appends dead letters for their own group again; other groups skip an entry that names another group in
-- `only`. Returns how many.
-- KEYS: dead, stream. ARGV: group, ids.
local count = 0
for i = 2, #ARGV do
  local dead = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if dead then
    local fields = {}
    for f = 1, #dead[2], 2 do fields[dead[2][f]] = dead[2][f + 1] end
    redis.call('XADD', KEYS[2], '*', 'data', fields.data, 'id', fields.id, 'at', fields.at,
      'headers', fields.headers, 'only', ARGV[1])
    redis.call('XDEL', KEYS[1], ARGV[i])
    count = count + 1
  end
end
return count
