-- KEYS: a user's index. Answers where its list goes on, and a part of it. A script, because one runs on
-- the master, and a replica would answer with an older list.
return redis.call('ZSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
