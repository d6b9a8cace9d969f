-- What every script begins with. A record is a hash: the fields below, and "." .. key for each of
-- the session's keys.
local now, index, id, write, if_version, expires, ttl, created = unpack(ARGV, 1, 8)
local touch, clear, owner, user, holder, new_holder = unpack(ARGV, 9, 14)

local DONE, GONE, CONFLICT, SPOILED = 1, 0, 2, 3
-- Few enough for Lua's stack, however many keys a session has.
local CHUNK = 1000

local function is_number(text)
    return text and string.find(text, '^%d+$')
end

-- Whether there is a record under `key`: 'none', 'over', 'live' or 'spoiled'; and its fields.
local function look(key)
    local f = redis.pcall('HMGET', key, 'version', 'expires', 'created', 'seen', 'owner', 'write', 'holder')
    -- It is no hash, unless something else is wrong.
    if f.err then return string.find(f.err, 'WRONGTYPE') and 'spoiled' or error(f.err), {} end
    if not (is_number(f[1]) and is_number(f[2]) and is_number(f[3]) and is_number(f[4]) and f[7]) then
        return redis.call('EXISTS', key) == 0 and 'none' or 'spoiled', {}
    end
    local record = { version = f[1], owner = f[5], write = f[6], holder = f[7] }
    if tonumber(f[2]) <= tonumber(now) then return 'over', record end
    return 'live', record
end

local function index_add(set)
    redis.call('ZADD', set, expires, id)
    -- The set lasts as long as its longest session, and the same minute more.
    local longest = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
    local left = math.max(tonumber(longest) - tonumber(now), 0) + 60000
    redis.call('PEXPIRE', set, string.format('%.0f', math.min(left, 2 ^ 50)))
end

-- Says in the index of the owner `is` that the record is theirs, and no more in that of `was`.
-- In a cluster these lie in other slots, and whoever called does it.
local function reindex(was, is)
    if index == '' then return end
    if is and is ~= '' then index_add(index .. is .. '}') end
    if was and was ~= is then redis.call('ZREM', index .. was .. '}', id) end
end

local function each_chunk(command, key, list, from, to)
    for i = from, to, CHUNK do
        redis.call(command, key, unpack(list, i, math.min(i + CHUNK - 1, to)))
    end
end

-- Writes the keys that are set, deletes those that are removed, and says when the record ends and how
-- often it was written.
local function merge(key, version)
    if clear == '1' then
        local gone = {}
        for _, field in ipairs(redis.call('HKEYS', key)) do
            if string.sub(field, 1, 1) == '.' then gone[#gone + 1] = field end
        end
        each_chunk('HDEL', key, gone, 1, #gone)
    end
    local last_set = 15 + tonumber(ARGV[15])
    -- In one command, as a rule: each costs as much again.
    local last = math.min(last_set, 15 + CHUNK)
    redis.call('HSET', key, 'version', version, 'seen', now, 'expires', expires, 'write', write,
        unpack(ARGV, 16, last))
    each_chunk('HSET', key, ARGV, last + 1, last_set)
    each_chunk('HDEL', key, ARGV, last_set + 1, #ARGV)
    if owner ~= '' then redis.call('HSET', key, 'user', user, 'owner', owner) end
    redis.call('PEXPIRE', key, ttl)
end
