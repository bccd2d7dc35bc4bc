-- The ownership of a stream within a group: which consumer owns it, or was its last owner, and until when in
-- milliseconds.
local function owner_of(key)
  local till, owner = string.match(redis.call('GET', key) or '', '^(%d+) (.+)$')
  return owner, tonumber(till or 0)
end

local function set_owner(key, owner, till)
  redis.call('SET', key, string.format('%d', till) .. ' ' .. owner)
end
