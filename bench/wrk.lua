-- Random accounts, and one line of figures at the end: requests, seconds, microseconds at p50 and p99, errors.
function init(args)
    math.randomseed(os.time())
end

function request()
    return wrk.format("GET", "/accounts/" .. math.random(1, 100000))
end

function done(summary, latency, requests)
    local failed = summary.errors
    io.write(string.format("FIGURES %d %.6f %.0f %.0f %d\n", summary.requests, summary.duration / 1e6,
        latency:percentile(50), latency:percentile(99),
        failed.connect + failed.read + failed.write + failed.timeout + failed.status))
end
