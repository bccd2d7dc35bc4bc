-- Says of each command whether this user may run it, 1 or 0; none is run. A command that the server does not
-- have, or has under another name, is one that nobody may run.
-- ARGV: of each command how many words it has, and its words; it may take some more.
local i, answers = 1, {}
while i <= #ARGV do
  local last = i + tonumber(ARGV[i])
  local command = {unpack(ARGV, i + 1, last)}
  local known, may
  for _ = 0, 5 do
    known, may = pcall(redis.acl_check_cmd, unpack(command))
    if known then break end
    command[#command + 1] = '1'
  end
  answers[#answers + 1] = known and may and 1 or 0
  i = last + 1
end
return answers
