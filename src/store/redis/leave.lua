-- KEYS: the record's, which was copied elsewhere. Answers whose it was.
--
-- The last step of a renewal in a cluster. Nothing is left under the id but, for ten seconds, which
-- renewal it was, so that the step can be sent again if its answer was lost.
local state, record = look(KEYS[1])
if record.moved == write then return { DONE, record.owner } end
local refused = refusal(state, record)
if refused then return refused end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'moved', write, 'owner', record.owner or '')
redis.call('PEXPIRE', KEYS[1], 10000)
return { DONE, record.owner }
