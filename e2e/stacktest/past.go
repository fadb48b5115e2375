package stacktest

// PastTheGate is the User-Agent of requests that a test sends to the cluster itself, with a credential that only the gate
// should have, to see the second wall. The sweep looks for what went through the gate, and leaves them out.
const PastTheGate = "sallyport-e2e-past-the-gate"
