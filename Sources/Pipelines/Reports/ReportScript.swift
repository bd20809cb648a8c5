// The page's script, in the order in which it runs.

/// The script, whole, without anything from elsewhere: its digest is in the page's policy.
let reportScript = scriptReading + scriptChoosing + scriptText + scriptHeads + scriptControls
