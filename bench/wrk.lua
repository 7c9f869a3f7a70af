-- A page (the first argument) of random accounts. At the end one line: requests, seconds, p99 in microseconds, errors.
-- Who comes to a server that is busy already is let in late. So all come first, and ask a second later.
function init(args)
    page, coming = args[1], tonumber(args[2])
    math.randomseed(os.time())
end

function delay()
    coming = coming - 1
    return coming >= 0 and 1000 or 0
end

function request()
    return wrk.format("GET", "/" .. page .. "/" .. math.random(1, 99000))
end

function done(summary, latency, requests)
    local failed = summary.errors
    io.write(string.format("FIGURES %d %.6f %.0f %d\n", summary.requests, summary.duration / 1e6,
        latency:percentile(99),
        failed.connect + failed.read + failed.write + failed.timeout + failed.status))
end
