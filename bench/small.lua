-- A script for wrk: every request puts the same small file under a new name, or gets the same one.
-- Arguments: to put, what comes before and after a number in the URL path, and a file that holds the
-- content; to get, the URL path of the file.
-- The last line of the output is JSON with the figures that client.py reads.

local before, after
local count = 0

function init(arguments)
    before, after = arguments[1], arguments[2]
    if after == nil then
        local get = wrk.format(nil, before)
        request = function() return get end
        return
    end
    local file = assert(io.open(arguments[3], "rb"))
    wrk.body = file:read("*a")
    file:close()
    wrk.method = "PUT"
    wrk.headers["Content-Type"] = "application/octet-stream"
end

function request()
    count = count + 1
    return wrk.format(nil, before .. count .. after)
end

function done(summary, latency, requests)
    local errors = summary.errors
    local failures = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format(
        '{"count": %d, "failures": %d, "seconds": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, '
            .. '"p999_ms": %.3f, "max_ms": %.3f}\n',
        summary.requests, failures, summary.duration / 1e6, latency:percentile(50) / 1e3,
        latency:percentile(99) / 1e3, latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
