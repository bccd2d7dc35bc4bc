-- What the server says about a group, and the order of ids.

-- Returns the names and values of a reply as a table.
local function named(row)
  local values = {}
  for i = 1, #row, 2 do values[row[i]] = row[i + 1] end
  return values
end

-- Returns a group of a stream, nothing if there is none or if the key holds something else.
local function group_of(stream, name)
  for _, row in ipairs(redis.pcall('XINFO', 'GROUPS', stream)) do
    local group = named(row)
    if group.name == name then return group end
  end
end

-- Returns whether an id comes before another one. Both parts are compared as texts, because they may exceed what
-- a number holds.
local function before(a, b)
  local x, y = {string.match(a, '^(%d+)-(%d+)$')}, {string.match(b, '^(%d+)-(%d+)$')}
  for i = 1, 2 do
    if #x[i] ~= #y[i] then return #x[i] < #y[i] end
    if x[i] ~= y[i] then return x[i] < y[i] end
  end
  return false
end
