-- Keeps the place, if the consumer has it.
-- KEYS: place. ARGV: consumer, lease in milliseconds.
if place(KEYS[1]) == ARGV[1] then occupy(KEYS[1], ARGV[1], now() + ARGV[2]) end
return 1
