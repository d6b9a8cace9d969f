-- KEYS: the record's.
local state, old = look(KEYS[1])
if state == 'corrupt' then return { SPOILED } end
-- The same write, sent again because its answer was lost, is there already.
if state == 'live' then return { old.write == write and DONE or GONE } end
reindex(old.owner, owner ~= '' and owner or nil)
if state == 'over' then redis.call('DEL', KEYS[1]) end
merge(KEYS[1], '1', {})
return { DONE }
