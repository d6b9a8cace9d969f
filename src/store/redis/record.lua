-- What every script begins with. A record is a hash: "meta", which says all but the session's values,
-- with spaces between; "user", if it is somebody's; and "." .. key for each of the session's keys.
local index, now, write, if_version, expires, ttl, created = unpack(ARGV, 1, 7)
local kind, owner, user, verifier, new_verifier = unpack(ARGV, 8, 12)

local DONE, GONE, CONFLICT, SPOILED = 1, 0, 2, 3
-- Few enough for Lua's stack, however many keys a session has.
local CHUNK = 1000

-- Whether there is a record under `key`: 'none', 'over', 'live' or 'corrupt'; and what its "meta" says.
-- A command costs a script about two microseconds, so there is one.
local function look(key)
    local meta = redis.pcall('HGET', key, 'meta')
    if not meta then return redis.call('EXISTS', key) == 0 and 'none' or 'corrupt', {} end
    -- It is no hash, unless something else is wrong.
    if meta.err then return string.find(meta.err, 'WRONGTYPE') and 'corrupt' or error(meta.err), {} end
    local version, ends, began, whose, owned, written =
        string.match(meta, '^(%d+) (%d+) (%d+) %d+ (%S+) (%S+) (%S+)$')
    if not version then return 'corrupt', {} end
    local record = { version = version, created = began, verifier = whose, write = written }
    record.owner = owned ~= '-' and owned or nil
    return tonumber(ends) <= tonumber(now) and 'over' or 'live', record
end

local function index_add(set, id)
    redis.call('ZADD', set, expires, id)
    -- What is over for a minute, as its record then is, makes room: a few for each that comes.
    local ended = string.format('%.0f', tonumber(now) - 60000)
    local over = redis.call('ZRANGEBYSCORE', set, '-inf', ended, 'LIMIT', 0, 10)
    if #over > 0 then redis.call('ZREM', set, unpack(over)) end
    -- The set lasts as long as its longest session, and the same minute more.
    local longest = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
    local left = math.max(tonumber(longest) - tonumber(now), 0) + 60000
    redis.call('PEXPIRE', set, string.format('%.0f', math.min(left, 2 ^ 50)))
end

-- Says in the index of the owner `is` that the record is theirs, and no more in that of `was`.
-- In a cluster these lie in other slots, and whoever called does it.
local function reindex(was, is)
    if index == '' or not (was or is) then return end
    local id = string.match(KEYS[1], '{(%x+)}$')
    if is then index_add(index .. is .. '}', id) end
    if was and was ~= is then redis.call('ZREM', index .. was .. '}', id) end
end

local function each_chunk(command, key, list, from, to)
    for i = from, to, CHUNK do
        redis.call(command, key, unpack(list, i, math.min(i + CHUNK - 1, to)))
    end
end

-- Writes a record of `version` and the keys that are set, deletes those that are removed, and says when it
-- ends. It is that of `was`, if there was one.
local function merge(key, version, was)
    if kind == 'clear' then
        local gone = {}
        for _, field in ipairs(redis.call('HKEYS', key)) do
            if string.sub(field, 1, 1) == '.' then gone[#gone + 1] = field end
        end
        each_chunk('HDEL', key, gone, 1, #gone)
    end
    local began, answers_to = was.created or created, verifier
    if new_verifier ~= '' then began, answers_to = created, new_verifier end
    local owned = owner ~= '' and owner or was.owner or '-'
    local meta = table.concat({ version, expires, began, now, answers_to, owned, write }, ' ')
    local last_set = 13 + tonumber(ARGV[13])
    local last = math.min(last_set, 13 + CHUNK)
    redis.call('HSET', key, 'meta', meta, unpack(ARGV, 14, last))
    each_chunk('HSET', key, ARGV, last + 1, last_set)
    each_chunk('HDEL', key, ARGV, last_set + 1, #ARGV)
    if owner ~= '' then redis.call('HSET', key, 'user', user) end
    redis.call('PEXPIRE', key, ttl)
end
