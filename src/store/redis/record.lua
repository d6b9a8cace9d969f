-- Every script begins with this. A record is a hash with these fields:
--   "meta": its verifier, and the time until which the server was told to keep it
--   "head": its version, its creation time, and the nonce of the last script that wrote it
--   "owner", "user": the name of its user's index, and the user; only if it has one
--   "e" .. gen: the time when it expires, and the time when it was last seen
--   gen .. key: the value of one session key
-- gen is the beginning of the verifier's text. Fields of another gen are late writes of requests that a
-- renewal overtook; they do not belong to the record. Neither does anything in a hash without "meta",
-- which is a late write to a record that was destroyed.
local index, now, verifier, new_verifier, nonce, if_version = unpack(ARGV, 1, 6)
local expires, keep, ttl, created, kind, owner, user = unpack(ARGV, 7, 13)

local DONE, GONE, CONFLICT, SPOILED = 1, 0, 2, 3
-- Few enough for Lua's stack, however many keys a session has.
local CHUNK = 1000

local function gen(of)
    return string.sub(of, 1, 11)
end

-- Calls a command of the hash with each part of list[from..to].
local function each_chunk(command, key, list, from, to)
    for i = from, to, CHUNK do
        redis.call(command, key, unpack(list, i, math.min(i + CHUNK - 1, to)))
    end
end

-- Returns the state of the record under `key`, 'none', 'over', 'live' or 'corrupt', and its parts.
local function look(key)
    local found = redis.pcall('HMGET', key, 'meta', 'head', 'owner', 'e' .. gen(verifier))
    -- It is not a hash, unless something else is wrong.
    if found.err then return string.find(found.err, 'WRONGTYPE') and 'corrupt' or error(found.err), {} end
    local meta, head, owned, seen = unpack(found, 1, 4)
    if not meta then return 'none', {} end
    local answers_to, kept = string.match(meta, '^(%S+) (%d+)$')
    if answers_to and answers_to ~= verifier then
        seen = redis.call('HGET', key, 'e' .. gen(answers_to))
    end
    local version, began, written = string.match(head or '', '^(%d+) (%d+) (%S+)$')
    local ends = string.match(seen or '', '^(%d+) %d+$')
    if not (answers_to and version and ends) then return 'corrupt', {} end
    local record = { version = version, created = began, nonce = written, owner = owned or nil }
    record.verifier, record.kept, record.expires = answers_to, kept, ends
    -- It ends when the server was told, even if a plain write that told the server nothing says later.
    local is_over = math.min(tonumber(ends), tonumber(kept)) <= tonumber(now)
    return is_over and 'over' or 'live', record
end

local function index_add(set, id, score)
    -- Only ever raised: the record is kept at least as long.
    redis.call('ZADD', set, 'GT', score, id)
    -- Every addition removes a few entries whose records were dropped, a minute after their time.
    local ended = string.format('%.0f', tonumber(now) - 60000)
    local over = redis.call('ZRANGEBYSCORE', set, '-inf', ended, 'LIMIT', 0, 10)
    if #over > 0 then redis.call('ZREM', set, unpack(over)) end
    -- The set lasts as long as its longest session, and the same minute more.
    local longest = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
    local left = math.max(tonumber(longest) - tonumber(now), 0) + 60000
    redis.call('PEXPIRE', set, string.format('%.0f', math.min(left, 2 ^ 50)))
end

-- Adds the record to the index of the owner `is`, and removes it from that of `was`. In a cluster these
-- are in other slots, and the caller does it.
local function reindex(was, is, score)
    if index == '' or not (was or is) then return end
    local id = string.match(KEYS[1], '{(%x+)}$')
    if is then index_add(index .. is .. '}', id, score) end
    if was and was ~= is then redis.call('ZREM', index .. was .. '}', id) end
end

-- ARGV[14] and ARGV[15] count the arguments that follow: fields and values to set; then fields and the
-- values that updates were computed from, empty for none. The fields to delete are the rest.
local first_set = 16
local last_set = 15 + (tonumber(ARGV[14]) or 0)
local last_expected = last_set + (tonumber(ARGV[15]) or 0)

-- Sets the fields of a record, and those that ARGV sets.
local function set(key, fields)
    local last = math.min(last_set, 15 + CHUNK)
    for i = first_set, last do fields[#fields + 1] = ARGV[i] end
    redis.call('HSET', key, unpack(fields))
    each_chunk('HSET', key, ARGV, last + 1, last_set)
end
