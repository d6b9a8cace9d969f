-- KEYS: the record's. Answers its former owner, and the time until which it is kept if an index has to know.

-- Whether the record is not what the write was computed from. Plain writes do not count the version, so
-- the values decide; a write that clears names all of them.
local function differs(key, record)
    if if_version == '0' then return true end
    if (kind == 'clear' or last_expected == last_set) and if_version ~= record.version then return true end
    local named = 0
    for i = last_set + 1, last_expected, 2 do
        local value = redis.call('HGET', key, ARGV[i]) or ''
        if value ~= ARGV[i + 1] then return true end
        if value ~= '' then named = named + 1 end
    end
    if kind ~= 'clear' or last_expected == last_set then return false end
    local begins = gen(verifier)
    for _, field in ipairs(redis.call('HKEYS', key)) do
        if string.sub(field, 1, #begins) == begins then named = named - 1 end
    end
    return named ~= 0
end

-- Deletes the values of every gen. A renewal returns those of the record, under its own gen, without those
-- that ARGV deletes.
local function take_out(key)
    local from, to = gen(verifier), gen(new_verifier)
    local deleted = {}
    for i = last_expected + 1, #ARGV do deleted[ARGV[i]] = true end
    local drop, move = {}, {}
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
        local field = all[i]
        if not (field == 'meta' or field == 'head' or field == 'owner' or field == 'user') then
            drop[#drop + 1] = field
            if kind ~= 'clear' and string.sub(field, 1, #from) == from and not deleted[field] then
                move[#move + 1] = to .. string.sub(field, #from + 1)
                move[#move + 1] = all[i + 1]
            end
        end
    end
    each_chunk('HDEL', key, drop, 1, #drop)
    return move
end

local key = KEYS[1]
local state, record = look(key)
if state == 'corrupt' then return { SPOILED } end
-- The same write, sent again because its answer was lost, is there already.
if state == 'live' and record.nonce == nonce then return { DONE, record.owner or '', record.kept } end
if state ~= 'live' or record.verifier ~= verifier then return { GONE, record.owner or '' } end
if if_version ~= '' and differs(key, record) then return { CONFLICT } end

local renews = new_verifier ~= ''
-- It loaded an end that a plain write may have moved since.
local waited = if_version ~= '' or kind == 'raise'
if waited and not renews and tonumber(record.expires) > tonumber(expires) then expires = record.expires end
local raises = tonumber(expires) > tonumber(record.kept)
if not raises then keep = record.kept end
if raises or owner ~= '' then reindex(record.owner, owner ~= '' and owner or record.owner, keep) end

local moved = (renews or kind == 'clear') and take_out(key) or {}
local answers_to = renews and new_verifier or verifier
local began = renews and created or record.created
local is_counted = kind ~= 'touch' and kind ~= 'raise'
local version = string.format('%.0f', tonumber(record.version) + (is_counted and 1 or 0))
local fields = { 'head', version .. ' ' .. began .. ' ' .. nonce, 'e' .. gen(answers_to), expires .. ' ' .. now }
if raises or renews then
    fields[#fields + 1] = 'meta'
    fields[#fields + 1] = answers_to .. ' ' .. keep
end
if owner ~= '' then
    for _, field in ipairs({ 'owner', owner, 'user', user }) do fields[#fields + 1] = field end
end
each_chunk('HSET', key, moved, 1, #moved)
set(key, fields)
if not renews then each_chunk('HDEL', key, ARGV, last_expected + 1, #ARGV) end
if raises then redis.call('PEXPIRE', key, ttl) end
return { DONE, record.owner or '', (raises or owner ~= '') and keep }
