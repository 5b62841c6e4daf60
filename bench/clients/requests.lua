-- For wrk: requests to a proxy, in absolute form, over kept connections. Every answer is checked, and the last line
-- printed is one JSON object.
--
-- Arguments: the URI, the host, the expected body.

local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init(args)
    good, wrong, example = 0, 0, ""
    expected = args[3]
    text = "GET " .. args[1] .. " HTTP/1.1\r\nHost: " .. args[2] .. "\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
end

function request()
    return text
end

function response(status, headers, body)
    if status == 200 and body == expected then
        good = good + 1
    else
        wrong = wrong + 1
        example = status .. " " .. string.sub(body, 1, 200)
    end
end

function done(summary, latency, requests)
    local good, wrong, example = 0, 0, ""
    for _, thread in ipairs(threads) do
        good = good + thread:get("good")
        wrong = wrong + thread:get("wrong")
        if thread:get("example") ~= "" then example = thread:get("example") end
    end
    local errors = summary.errors
    local lost = errors.connect + errors.read + errors.write + errors.timeout
    if lost > 0 then
        example = string.format("%s (errors: connect %d, read %d, write %d, timeout %d)", example, errors.connect,
            errors.read, errors.write, errors.timeout)
    end
    example = string.gsub(example, "[%c\"\\]", " ")
    print(string.format('\n{"good": %d, "wrong": %d, "examples": ["%s"], "seconds": %.3f}', good, wrong + lost, example,
        summary.duration / 1e6))
end
