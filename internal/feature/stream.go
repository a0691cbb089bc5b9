package feature

import (
	"io"
	"net/http"
	"time"
)

// streamEvery is how long what a client follows waits for more, so that one write has much.
const streamEvery = 100 * time.Millisecond

// Stream answers a client that follows something. It calls write at once, every tenth of a second,
// and whenever there is a value in full, until write is done or fails, the client leaves, or stop is
// closed. The client may stop reading for a while, as a pager does, but not beyond stop.
func Stream(w http.ResponseWriter, r *http.Request, kind string, full, stop <-chan struct{}, write func(io.Writer) (done bool, err error)) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{})
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-stop: // a client that does not read must not keep the daemon from ending
			_ = control.SetWriteDeadline(time.Now())
		case <-ended:
		}
	}()
	w.Header().Set("Content-Type", kind)
	tick := time.NewTicker(streamEvery)
	defer tick.Stop()
	for {
		done, err := write(w)
		if err != nil || control.Flush() != nil || done {
			return
		}
		select {
		case <-full:
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-stop:
			return
		}
	}
}
