-- KEYS: the record's. Answers whose it was.
local state, record = look(KEYS[1])
if state == 'live' and record.write == write then return { DONE, record.owner } end
local refused = refusal(state, record)
if refused then return refused end
reindex(record.owner, id, owner ~= '' and owner or record.owner, id)
if touch == '' then redis.call('HINCRBY', KEYS[1], 'version', 1) end
merge(KEYS[1])
return { DONE, record.owner }
