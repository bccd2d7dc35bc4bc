-- Hands dead letters to their own group anew: other groups pass over an entry that is for one `only`.
-- Returns how many.
-- KEYS: dead, stream. ARGV: group, ids.
local count = 0
for i = 2, #ARGV do
  local letter = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])[1]
  if letter then
    local fields = {}
    for f = 1, #letter[2], 2 do fields[letter[2][f]] = letter[2][f + 1] end
    redis.call('XADD', KEYS[2], '*', 'data', fields.data, 'id', fields.id, 'at', fields.at,
      'headers', fields.headers, 'only', ARGV[1])
    redis.call('XDEL', KEYS[1], ARGV[i])
    count = count + 1
  end
end
return count
