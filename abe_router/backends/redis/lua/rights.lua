-- Returns for each command 1 if this user may run it, else 0; none is run. A command that the server lacks,
-- or has under another name, is 0. ARGV: for each command the number of its words, and its words; it may
-- take more arguments.
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
