-- The place of a group on a stream: which consumer has, or had, it to itself, and until when in milliseconds.
local function place(key)
  local till, owner = string.match(redis.call('GET', key) or '', '^(%d+) (.+)$')
  return owner, tonumber(till or 0)
end

local function occupy(key, owner, till)
  redis.call('SET', key, string.format('%d', till) .. ' ' .. owner)
end
