-- Releases the ownership of a stream, if the consumer has it, and notifies the consumers that wait for it.
-- KEYS: owner, released. ARGV: consumer.
if owner_of(KEYS[1]) == ARGV[1] then
  set_owner(KEYS[1], ARGV[1], 0)
  redis.call('XADD', KEYS[2], 'MAXLEN', 1, '*', 'by', ARGV[1])
end
return 1
