-- Renews the ownership of a stream, if the consumer has it.
-- KEYS: owner. ARGV: consumer, lease in milliseconds.
if owner_of(KEYS[1]) == ARGV[1] then set_owner(KEYS[1], ARGV[1], now() + ARGV[2]) end
return 1
