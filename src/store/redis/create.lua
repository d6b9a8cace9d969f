-- KEYS: the record's.
local key = KEYS[1]
local state, old = look(key)
if state == 'corrupt' then return { SPOILED } end
-- The same write, sent again because its answer was lost, is there already.
if state == 'live' then return { old.nonce == nonce and DONE or GONE } end
reindex(old.owner, owner ~= '' and owner or nil, keep)
-- Also what a late write left there.
redis.call('DEL', key)
local fields = { 'meta', verifier .. ' ' .. keep, 'head', '1 ' .. created .. ' ' .. nonce }
if owner ~= '' then
    for _, field in ipairs({ 'owner', owner, 'user', user }) do fields[#fields + 1] = field end
end
fields[#fields + 1] = 'e' .. gen(verifier)
fields[#fields + 1] = expires .. ' ' .. now
set(key, fields)
redis.call('PEXPIRE', key, ttl)
return { DONE }
