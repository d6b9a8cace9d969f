-- KEYS: the record's. Answers whose it was.
local state, record = look(KEYS[1])
if state == 'corrupt' then return { SPOILED } end
-- The same write, sent again because its answer was lost, is there already.
if state == 'live' and record.write == write then return { DONE, record.owner } end
if state ~= 'live' or record.verifier ~= verifier then return { GONE } end
if if_version ~= '' and if_version ~= record.version then return { CONFLICT } end
reindex(record.owner, owner ~= '' and owner or record.owner)
local version = tonumber(record.version) + (kind == 'touch' and 0 or 1)
merge(KEYS[1], string.format('%.0f', version), record)
return { DONE, record.owner }
