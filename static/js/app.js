// The one entry: each module is one behaviour, bound by data- attributes, and leaves pages alone that do not use it.

import { start as startAnnounce } from "./announce.js";
import { start as startComments } from "./comments.js";
import { start as startBulk } from "./bulk.js";
import { start as startConfirm } from "./confirm.js";
import { start as startDismiss } from "./dismiss.js";
import { start as startDraft } from "./draft.js";
import { start as startHold } from "./hold.js";
import { start as startKeys } from "./keys.js";
import { start as startLanding } from "./landing.js";
import { start as startLocalTime } from "./localtime.js";
import { start as startRemember } from "./remember.js";
import { start as startPasskey } from "./passkey.js";
import { start as startTheme } from "./theme.js";
import { start as startVisible } from "./visible.js";

startTheme();
startComments();
startBulk();
startConfirm();
startDismiss();
startDraft();
startKeys();
startHold();
startRemember();
startAnnounce();
startLanding();
startVisible();
startPasskey();
startLocalTime();
