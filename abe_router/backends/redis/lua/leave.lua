-- Lets others have the place, if the consumer has it, and tells them.
-- KEYS: place, left. ARGV: consumer.
if place(KEYS[1]) == ARGV[1] then
  occupy(KEYS[1], ARGV[1], 0)
  redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'by', ARGV[1])
end
return 1
