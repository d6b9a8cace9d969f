-- KEYS: the record's. Answers whose it was.
local state, record = look(KEYS[1])
if state == 'spoiled' then return { SPOILED } end
if state == 'none' then return { DONE } end
reindex(record.owner)
redis.call('DEL', KEYS[1])
return { DONE, record.owner }
