//go:build interop

package interop

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
)

// browser is a page in Chromium, driven by the DevTools protocol: JSON messages that end in a
// zero byte, through pipes.
type browser struct {
	t       *testing.T
	to      *os.File
	session string

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
	console []string // what the page complained about
}

type answer struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// startBrowser starts Chromium with an empty page, until the test ends.
func startBrowser(t *testing.T) *browser {
	t.Helper()
	if release, _ := os.ReadFile("/etc/os-release"); slices.Contains(strings.Split(string(release), "\n"), "ID=ubuntu") {
		t.Skip("left out: needs Chromium, which Ubuntu has as a snap only")
	}
	name := testenv.Tool(t, "chromium")
	theirs, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, ours, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	cmd.ExtraFiles = []*os.File{theirs, ours}
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	ours.Close()
	b := &browser{t: t, to: to, waiting: make(map[int]chan answer)}
	t.Cleanup(func() {
		_, _ = b.try("Browser.close", map[string]any{})
		ended := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		ended.Stop()
		if t.Failed() {
			t.Logf("chromium said: %.2000s", said.String())
		}
	})
	go b.read(from)

	var targets struct {
		TargetInfos []struct{ TargetID, Type string }
	}
	testenv.Eventually(t, "chromium has a page", func() bool {
		b.call("Target.getTargets", map[string]any{}, &targets)
		for _, target := range targets.TargetInfos {
			if target.Type == "page" {
				var attached struct{ SessionID string }
				b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
				b.session = attached.SessionID
				return true
			}
		}
		return false
	})
	b.call("Runtime.enable", map[string]any{}, nil)
	b.call("Log.enable", map[string]any{}, nil)
	return b
}

// read distributes what Chromium says, until it ends.
func (b *browser) read(from *os.File) {
	defer from.Close()
	for r := bufio.NewReader(from); ; {
		line, err := r.ReadBytes(0)
		b.mu.Lock()
		if err != nil {
			for id, ch := range b.waiting {
				close(ch)
				delete(b.waiting, id)
			}
			b.waiting = nil
			b.mu.Unlock()
			return
		}
		var a answer
		_ = json.Unmarshal(line[:len(line)-1], &a)
		if ch := b.waiting[a.ID]; ch != nil && a.ID != 0 {
			delete(b.waiting, a.ID)
			ch <- a
		} else if a.Method == "Runtime.exceptionThrown" || a.Method == "Log.entryAdded" || a.Method == "Runtime.consoleAPICalled" {
			b.console = append(b.console, string(a.Params))
		}
		b.mu.Unlock()
	}
}

func (b *browser) try(method string, params any) (json.RawMessage, error) {
	ch := make(chan answer, 1)
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		return nil, fmt.Errorf("%s: chromium has ended", method)
	}
	b.last++
	m := map[string]any{"id": b.last, "method": method, "params": params}
	if b.session != "" {
		m["sessionId"] = b.session
	}
	b.waiting[b.last] = ch
	b.mu.Unlock()
	line, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	if _, err := b.to.Write(append(line, 0)); err != nil {
		return nil, err
	}
	select {
	case a, ok := <-ch:
		if !ok {
			return nil, fmt.Errorf("%s: chromium has ended", method)
		}
		if a.Error != nil {
			return nil, fmt.Errorf("%s: %s", method, a.Error.Message)
		}
		return a.Result, nil
	case <-time.After(time.Minute):
		return nil, fmt.Errorf("%s: no answer", method)
	}
}

func (b *browser) call(method string, params, result any) {
	b.t.Helper()
	r, err := b.try(method, params)
	if err == nil && result != nil {
		err = json.Unmarshal(r, result)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// open opens a page.
func (b *browser) open(url string) {
	b.t.Helper()
	b.call("Page.navigate", map[string]any{"url": url}, nil)
}

// eval runs JavaScript in the page, and stores what it or its promise returns.
func (b *browser) eval(result any, script string) {
	b.t.Helper()
	var a struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "returnByValue": true, "awaitPromise": true}, &a)
	if a.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", script, a.ExceptionDetails)
	}
	if result != nil {
		if err := json.Unmarshal(a.Result.Value, result); err != nil {
			b.t.Fatalf("%s returns %s: %v", script, a.Result.Value, err)
		}
	}
}

// holds reports whether JavaScript in the page is true.
func (b *browser) holds(script string) (yes bool) {
	b.t.Helper()
	b.eval(&yes, "!!("+script+")")
	return yes
}

// press presses a key, such as Tab.
func (b *browser) press(key string) {
	b.t.Helper()
	code := map[string]int{"Tab": 9, "Enter": 13, "Escape": 27}[key]
	text := map[string]string{"Enter": "\r"}[key]
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text}, nil)
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code}, nil)
}

// look sets the size of the window, and whether the user prefers dark pages.
func (b *browser) look(width, height int, dark bool) {
	b.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{
		{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"},
	}}, nil)
}

// picture writes what the page looks like to a file below $VSWITCH_SCREENSHOTS, if that is set.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("VSWITCH_SCREENSHOTS")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// complaints returns what the page and the browser complained about.
func (b *browser) complaints() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.console
}
